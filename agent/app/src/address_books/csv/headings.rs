//! What the headings of CSV files mean: those of Thunderbird's, Outlook's and Google's exports (Google's of before and after
//! 2024), in the languages that these programs are used in most, and what people write themselves.
//!
//! A heading that means different things in two languages counts as what it is in the larger number of exports: French `Nom` is
//! the family name, Spanish `Nombre` and Italian `Nome` the given one.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// An address: of two, the one of the lower number is preferred.
    Address(u8),
    /// The whole name.
    Name,
    /// The given name.
    GivenName,
    /// The family name.
    FamilyName,
    /// The groups that the person is in.
    Labels,
}

/// What a column of this heading holds, if that is known.
pub(super) fn column(heading: &str) -> Option<Column> {
    let heading = heading.to_lowercase().replace("e-mail", "email").replace(['-', ':'], " ");
    // `E-mail 2 Address`, `E-Mail 2: Adresse`, `Adresse de messagerie 2`, `E-mail 1 - Value`.
    let mut number = None;
    let mut words: Vec<&str> = Vec::new();
    for word in heading.split_whitespace() {
        match word.parse() {
            Ok(found) if number.is_none() => number = Some(found),
            _ => words.push(word),
        }
    }
    let words = words.join(" ");
    let is_in = |list: &[&str]| list.contains(&words.as_str());
    if is_in(ADDRESS) {
        return Some(Column::Address(number.unwrap_or(1)));
    }
    if number.is_some() {
        return None;
    }
    if is_in(SECOND_ADDRESS) {
        Some(Column::Address(2))
    } else if is_in(NAME) {
        Some(Column::Name)
    } else if is_in(GIVEN_NAME) {
        Some(Column::GivenName)
    } else if is_in(FAMILY_NAME) {
        Some(Column::FamilyName)
    } else if is_in(LABELS) {
        Some(Column::Labels)
    } else {
        None
    }
}

const ADDRESS: &[&str] = &[
    "email",
    "mail",
    "email address",
    "email value",
    "primary email",
    "email adresse",
    "primäre email adresse",
    "adresse de messagerie",
    "adresse email",
    "adresse électronique",
    "adresse électronique principale",
    "première adresse électronique",
    "courriel",
    "dirección de correo electrónico",
    "correo electrónico",
    "correo electrónico principal",
    "indirizzo posta elettronica",
    "indirizzo di posta elettronica",
    "indirizzo email",
    "emailadres",
    "primair emailadres",
    "endereço de email",
    "endereço de correio eletrónico",
    "endereço de correio eletrônico",
    "adres email",
    "adres e mail",
    "e postadress",
    "e postadresse",
    "emailadresse",
    "sähköpostiosoite",
    "emailová adresa",
    "адрес эл. почты",
    "адрес электронной почты",
    "電子メール アドレス",
    "メールアドレス",
    "电子邮件地址",
];

const SECOND_ADDRESS: &[&str] = &[
    "secondary email",
    "sekundäre email adresse",
    "weitere email adresse",
    "adresse électronique secondaire",
    "correo electrónico secundario",
    "secundair emailadres",
];

const NAME: &[&str] = &[
    "name",
    "display name",
    "full name",
    "anzeigename",
    "nom complet",
    "nom à afficher",
    "nombre completo",
    "nombre a mostrar",
    "nome completo",
    "nome visualizzato",
    "weergavenaam",
    "volledige naam",
    "visningsnamn",
    "visningsnavn",
    "imię i nazwisko",
    "полное имя",
];

const GIVEN_NAME: &[&str] = &[
    "first name",
    "given name",
    "vorname",
    "prénom",
    "nombre",
    "nome",
    "voornaam",
    "imię",
    "förnamn",
    "fornavn",
    "etunimi",
    "jméno",
    "имя",
    "名",
];

const FAMILY_NAME: &[&str] = &[
    "last name",
    "family name",
    "surname",
    "nachname",
    "familienname",
    "nom",
    "nom de famille",
    "apellidos",
    "apellido",
    "cognome",
    "achternaam",
    "sobrenome",
    "apelido",
    "nazwisko",
    "efternamn",
    "efternavn",
    "etternavn",
    "sukunimi",
    "příjmení",
    "фамилия",
    "姓",
];

const LABELS: &[&str] = &[
    "labels",
    "label",
    "group membership",
    "categories",
    "category",
    "groups",
    "group",
    "lists",
    "list",
    "kategorien",
    "kategorie",
    "gruppen",
    "gruppe",
    "catégories",
    "catégorie",
    "groupes",
    "groupe",
    "libellés",
    "categorías",
    "categoría",
    "grupos",
    "grupo",
    "categorie",
    "categoria",
    "gruppi",
    "gruppo",
    "categorieën",
    "groepen",
    "groep",
    "categorias",
    "grupy",
    "grupa",
    "kategorier",
    "grupper",
    "luokat",
    "категории",
    "группы",
    "分類",
    "类别",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_of_many_languages_and_programs_are_known() {
        let known = [
            ("E-mail Address", Column::Address(1)),
            ("E-mail 2 Address", Column::Address(2)),
            ("E-mail 1 - Value", Column::Address(1)),
            ("Secondary Email", Column::Address(2)),
            ("E-Mail-Adresse", Column::Address(1)),
            ("E-Mail 2: Adresse", Column::Address(2)),
            ("Primäre E-Mail-Adresse", Column::Address(1)),
            ("Adresse de messagerie 3", Column::Address(3)),
            ("Dirección de correo electrónico", Column::Address(1)),
            ("Vorname", Column::GivenName),
            ("Nom", Column::FamilyName),
            ("APELLIDOS", Column::FamilyName),
            ("Categorieën", Column::Labels),
            ("Категории", Column::Labels),
        ];
        for (heading, expected) in known {
            assert_eq!(column(heading), Some(expected), "{heading}");
        }
        for other in
            ["E-mail Display Name", "E-Mail: Angezeigter Name", "E-mail 2 Type", "Phone 1", "Nom 2", "", "  "]
        {
            assert_eq!(column(other), None, "{other}");
        }
    }

    #[test]
    fn no_heading_stands_for_two_things() {
        let all: Vec<_> = [ADDRESS, SECOND_ADDRESS, NAME, GIVEN_NAME, FAMILY_NAME, LABELS].concat();
        for (at, heading) in all.iter().enumerate() {
            assert!(!all[..at].contains(heading), "{heading}");
            assert!(column(heading).is_some(), "{heading} is not in normal form");
        }
    }
}
